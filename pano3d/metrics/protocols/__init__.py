"""Published evaluation protocols, one file each: a frozen dataclass of decisions and one function.

Values live in `params/protocol/<name>.yaml`. `decisions(config)` lists them in words for printing with the numbers;
what a paper leaves open is said there too.
"""
