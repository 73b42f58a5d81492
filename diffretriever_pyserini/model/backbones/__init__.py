"""Masked and diffusion language models with one interface, :class:`~.base.Backbone`; one file per family."""
