"""As much of NeMo-Run as ``with_nca`` and the factory of NeMo's command line touch."""

from types import SimpleNamespace


class Config:
    """A call that is not made yet: a callable, and its arguments as attributes."""

    def __init__(self, callable_, **arguments):
        vars(self).update(__fn_or_cls__=callable_, __arguments__=dict(arguments))

    def __class_getitem__(cls, item):
        return cls

    def __getattr__(self, name):
        try:
            return vars(self)["__arguments__"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        vars(self)["__arguments__"][name] = value


def _factory(name):
    def named(function):
        function.factory_name = name
        return function

    return named


cli = SimpleNamespace(factory=_factory)
