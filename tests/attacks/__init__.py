"""What an attacker tries, each with all the power he has, and which line of an honest party's tool says so."""
