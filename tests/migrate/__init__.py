"""What other proxies' configurations become."""
