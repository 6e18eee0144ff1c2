//! `hawser-operator`: the controller, the webhook and `crdgen`.

fn main() {}
