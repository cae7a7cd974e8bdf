"""Published evaluation protocols, one file each: a frozen dataclass of decisions and one function.

`catalogue` runs any of them over scenes; `pano3d score --protocol` calls it. Values live in
`params/protocol/<name>.yaml`. `decisions(config)` lists them in words for printing with the numbers; what a paper
leaves open is said there too.
"""
