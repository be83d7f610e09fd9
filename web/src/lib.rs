//! HTTP API, JSON views, metrics and the console
