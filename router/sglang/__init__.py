"""The Rust router of the SGLang project in place of our relays: `backend = "sglang"` under [router]."""
