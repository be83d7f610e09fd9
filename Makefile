# Two commands are all the set-up there is: `make demo` and `make test`.

.PHONY: demo test test-fast soak bench lint docs

demo: ## watch a real failover on this machine
	scripts/servers.sh demo
	cargo run --locked -- demo $(DEMO_FLAGS)

test: ## everything, on real servers
	scripts/servers.sh test
	cargo test --workspace --locked

test-fast: ## what needs no servers
	cargo test --workspace --locked --lib --bins

soak: ## fault schedules against the simulator until stopped; exits non-zero at the first violation
	cargo run --release --locked -p vtorc-sim -- $(SOAK_FLAGS)

bench: ## N failovers on real servers beside the bare SQL
	scripts/servers.sh test
	cargo run --release --locked -- bench $(BENCH_FLAGS)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

docs: ## write the generated tables of docs/ anew
	REWRITE=1 cargo test --locked documentation
