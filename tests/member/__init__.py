"""What a member's machine promises."""
