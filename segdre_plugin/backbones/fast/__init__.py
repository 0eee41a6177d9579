"""The fast path: the same numbers as the backbone's own forward, in less time and memory.

Three parts, each of which falls back on the backbone's own way where it does not fit: entity and context pooling of a
batch at once (``pooling``), the head of the model on distinct rows and without the bilinear products (``pairs``,
``grouped``), and attention weights of the pooled layers only (``encoder``).
"""

from segdre_plugin.backbones.fast.install import speed_up

__all__ = ["speed_up"]
