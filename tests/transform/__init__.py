"""The dbt project `transform/` on real warehouses."""
