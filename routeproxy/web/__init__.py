"""HTTP: paths, handlers, the event stream on the wire. The only folder that knows Litestar."""
