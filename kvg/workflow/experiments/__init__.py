"""Questions about the method: registered, carried out in pieces on any machine, and written down as a page."""
