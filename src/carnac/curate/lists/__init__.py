"""What stands on lists: opted out, blocked, reserved."""
