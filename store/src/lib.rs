//! Every SQL statement: one module per aggregate, the ledger, the audit chain.
