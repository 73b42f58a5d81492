"""The start-up hook: waits for the first import of Pyserini, then lets our plugin attach itself to it.

Python imports this module at every start (through ``diffretriever-pyserini.pth``, or ``.start`` from Python 3.15 on),
so it is tiny, needs only ``sys``, and never imports the package proper until ``pyserini`` itself has been imported.
``DIFFRETRIEVER_NO_PLUGIN=1`` switches the plugin off; it is read when the hook fires, not when Python starts.
"""

import sys

OPT_OUT = "DIFFRETRIEVER_NO_PLUGIN"


class PostImportFinder:
    """A meta path finder that calls a function once, right after the module it waits for has been executed.

    Another function may execute the module's body. The callback is forgotten in ``exec_module`` and not in
    ``find_spec``: ``python -m package.module`` asks for the spec before it imports anything, and must not use the
    callback up.
    """

    def __init__(self):
        self.callbacks = {}
        self.loads = {}

    def watch(self, name, callback, load=None):
        """Call ``callback(module)`` after the module ``name`` is next imported.

        With ``load``, the module's body is executed by ``load(execute, module)``, which calls ``execute(module)``.
        """
        self.callbacks[name] = callback
        self.loads[name] = load
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def forget(self, name):
        """Stop waiting for the module ``name``; the finder leaves ``sys.meta_path`` when it waits for nothing."""
        self.callbacks.pop(name, None)
        self.loads.pop(name, None)
        if not self.callbacks and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name, path=None, target=None):
        """The spec that the other finders give, with a loader that also calls the callback."""
        if name not in self.callbacks:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _CallbackLoader(spec.loader, self)
                return spec
        return None


class _CallbackLoader:
    """The real loader, but for ``exec_module``: it also runs the callback, and then steps out of the way."""

    def __init__(self, loader, finder):
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        load = self._finder.loads.get(module.__name__)
        if load is None:
            self._loader.exec_module(module)
        else:
            load(self._loader.exec_module, module)
        callback = self._finder.callbacks.get(module.__name__)
        self._finder.forget(module.__name__)
        if callback is not None:
            callback(module)


finder = PostImportFinder()


def opted_out():
    """Whether the environment switches the plugin off right now."""
    import os

    return os.environ.get(OPT_OUT, "").strip().lower() not in ("", "0", "false", "no")


def attach(module):
    """Register the plugin, now that ``pyserini`` is there; a failure is one warning and never breaks the import."""
    if opted_out():
        return
    try:
        from diffretriever_pyserini.plugin import registry

        registry.register(route="hook")
    except Exception as error:
        import logging

        logging.getLogger("diffretriever_pyserini").warning(
            "DiffRetriever could not attach itself to Pyserini, which works on without it (%s: %s); "
            "run `diffretriever doctor`, or set %s=1 to silence this.",
            type(error).__name__,
            error,
            OPT_OUT,
        )


def ensure():
    """Register the plugin unless that was done or switched off: an encoder was made where this hook did not run."""
    from diffretriever_pyserini.plugin import registry

    registry.ensure_registered()


def install():
    """Wait for Pyserini; calling it twice, or after Pyserini was imported, does no harm."""
    if "pyserini" not in sys.modules:
        finder.watch("pyserini", attach)
