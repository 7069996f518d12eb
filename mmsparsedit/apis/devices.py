"""The device that a user names, looked at before any work."""


def check_device(name: str | None) -> str:
    """The device of this name; by default a GPU where there is one.

    Raises:
        ConfigError: no name of a device, or one that this machine does not have.
    """
    import torch

    from .config_files import ConfigError

    if name is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f'--device {name}: {reason} Use cpu, cuda or cuda:1.') from error
    if device.type == 'meta':
        raise ConfigError(f'--device {name} computes nothing. Use cpu, cuda or cuda:1.')
    return name
