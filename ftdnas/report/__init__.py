"""What people read: how far a ranking can be trusted, as a page, figures and lines of text."""
