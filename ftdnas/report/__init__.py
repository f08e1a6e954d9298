"""What people read: figures of synthetic sets."""
