"""PyTorch's own operators behind the contract: what every other backend is compared with.

``auto`` does not come here: where PyTorch's own serves a whole call, it goes straight to
``torch.nn.functional``.
"""
