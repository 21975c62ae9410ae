"""A small shop: products, orders, a payment provider's webhook, and the work that follows."""
