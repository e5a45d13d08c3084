"""How a stage is run: recipes, objectives, one loop, checkpoints."""
