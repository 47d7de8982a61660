"""Known answers that another language can check, and the program that makes them again."""
