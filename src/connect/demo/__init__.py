"""The main job on real input: a year of shopping baskets, reported, rewarded and recounted."""
