"""The C++ module. Absent where no compiler was at hand when fastce was installed."""

version: str

def cpu_features() -> list[str]: ...
