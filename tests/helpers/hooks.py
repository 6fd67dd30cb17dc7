"""What passes a module, seen by a hook."""


def shapes_through(module, compute):
    """Shapes of all that passes a module while something is computed."""
    shapes = []
    hook = module.register_forward_hook(lambda _, args, output: shapes.append(tuple(output.shape)))
    compute()
    hook.remove()
    return shapes
