from collections import defaultdict


class Callback:
    def on_train_start(self, context):
        pass


class CallbackManager:
    def __init__(self):
        self.registered = defaultdict(list)

    def add(self, callbacks):
        for callback in callbacks:
            if type(callback).on_train_start is not Callback.on_train_start:
                self.register("on_train_start", callback.on_train_start)

    def register(self, event_name, function):
        self.registered[event_name].append(function)

    def list_callbacks(self, event_name):
        return list(self.registered[event_name])

    def fire(self, event_name, context):
        for function in self.registered[event_name]:
            function(context)


def normalize_callbacks(callbacks):
    if callbacks is None or isinstance(callbacks, CallbackManager):
        return callbacks
    manager = CallbackManager()
    manager.add(callbacks)
    return manager
