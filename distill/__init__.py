"""Dataset distillation: real images in, one small synthetic set out.

Knows nothing of architecture search, of the command line or of the service.
"""
