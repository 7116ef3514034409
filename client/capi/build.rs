//! Gives the shared library its soname.
//!
//! Invariant: the number is that of the binary interface and changes only when a program built before would misbehave; it is also in
//! scripts/install_capi.sh, and tests/capi.rs fails when the two differ. Not here: how panics are caught (the profile `capi`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtramline.so.0");
}
