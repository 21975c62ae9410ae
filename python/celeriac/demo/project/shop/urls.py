"""The shop's addresses."""

from __future__ import annotations

from django.urls import path

from . import views, webhooks

urlpatterns = [
    path("health", views.health),
    path("products", views.product_list),
    path("products/<int:pk>", views.product_detail),
    path("products/<int:pk>/price", views.change_price),
    path("bestsellers", views.bestsellers),
    path("analytics", views.analytics),
    path("login", views.log_in),
    path("webhooks/orders", webhooks.order_event),
]
