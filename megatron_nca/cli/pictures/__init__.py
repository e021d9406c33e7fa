"""What commands draw: PNG, GIF, a page, the terminal."""
