"""The servers that streams deliver to, real ones, on free ports. A class and fixtures for each; ``process`` first."""
