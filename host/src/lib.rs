//! The Ganeti OS provider.
