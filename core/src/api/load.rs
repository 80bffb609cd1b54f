//! Reads YAML into typed resources, with findings.
