"""What a back end's error means: foreign statuses, bodies and wordings, as `UpstreamFailure`."""
