"""What a node tells about itself. The HTTP server of DESIGN section 1 has its place here."""
