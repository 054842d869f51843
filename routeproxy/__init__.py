"""routeproxy: Anthropic clients in front, any model behind, a rules file in between."""

__version__ = "0.1.0"
