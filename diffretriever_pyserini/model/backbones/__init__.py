"""Masked and diffusion language models behind one seam: :class:`~.base.Backbone`; one file a family."""
