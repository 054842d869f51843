"""A rules file becomes a policy (`file`, `compile`), which decides; what holds of it is proved and tested
(`verify`); it is watched and replaced (`live`). What stands here is the compiled policy: values and pure
functions."""
