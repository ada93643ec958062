"""Orders: a service in Python that joins a Drystone mesh. See README.md for the commands that make `orders.binpb`."""

import argparse
import threading
import uuid
from collections import defaultdict

import grpc
from acme.orders.v1 import orders_pb2, orders_pb2_grpc

from drystone_mesh import Config, Failure, add_arguments, current_call, run

MAX_QUANTITY = 1000
MAX_ARTICLE_LENGTH = 200
MAX_PAGE_SIZE = 200
DEFAULT_PAGE_SIZE = 50


def parse_uuid(field, text):
    """Parses a UUID in the hyphenated format; raises a `Failure` with the field otherwise."""
    try:
        if len(text) == 36:
            return str(uuid.UUID(text))
    except ValueError:
        pass
    raise Failure.invalid_field(field, "must be a UUID")


class OrderStore:
    """Orders in memory, oldest first for each user."""

    def __init__(self):
        self._lock = threading.Lock()
        self._orders = defaultdict(list)
        self._by_request = {}

    def create(self, owner_id, article, quantity, request_id):
        """Creates an order, or returns the existing order of the request id."""
        with self._lock:
            existing = self._by_request.get((owner_id, request_id)) if request_id else None
            if existing:
                if (existing.article, existing.quantity) != (article, quantity):
                    raise Failure("REQUEST_ID_REUSED", "the request id was used for another order; send a new one")
                return existing
            order = orders_pb2.Order(id=str(uuid.uuid4()), owner_id=owner_id, article=article, quantity=quantity)
            order.create_time.GetCurrentTime()
            self._orders[owner_id].append(order)
            if request_id:
                self._by_request[owner_id, request_id] = order
            return order

    def of_user(self, owner_id):
        with self._lock:
            return list(self._orders.get(owner_id, ()))

    def cancel(self, order_id):
        """Removes an order; returns whether it existed."""
        with self._lock:
            for orders in self._orders.values():
                for order in orders:
                    if order.id == order_id:
                        orders.remove(order)
                        return True
            return False


class OrderService(orders_pb2_grpc.OrderServiceServicer):
    """The RPCs. Access rules are in the contract and are enforced before a handler runs."""

    def __init__(self, store):
        self._store = store

    def ListOrders(self, request, context):
        if not 0 <= request.page_size <= MAX_PAGE_SIZE:
            raise Failure.invalid_field("page_size", f"must be 0 to {MAX_PAGE_SIZE}")
        orders = self._store.of_user(str(current_call().user.user_id))
        start = 0
        if request.page_token:
            ids = [order.id for order in orders]
            if request.page_token not in ids:
                raise Failure("INVALID_PAGE_TOKEN", "the page token was not made by this list; start again without one")
            start = ids.index(request.page_token) + 1
        page = orders[start : start + (request.page_size or DEFAULT_PAGE_SIZE)]
        has_more = start + len(page) < len(orders)
        return orders_pb2.ListOrdersResponse(orders=page, next_page_token=page[-1].id if has_more else "")

    def CreateOrder(self, request, context):
        if not 1 <= len(request.article) <= MAX_ARTICLE_LENGTH:
            raise Failure.invalid_field("article", f"must have 1 to {MAX_ARTICLE_LENGTH} characters")
        if not 1 <= request.quantity <= MAX_QUANTITY:
            raise Failure.invalid_field("quantity", f"must be 1 to {MAX_QUANTITY}")
        request_id = parse_uuid("request_id", request.request_id) if request.request_id else None
        owner_id = str(current_call().user.user_id)
        return self._store.create(owner_id, request.article, request.quantity, request_id)

    def CancelOrder(self, request, context):
        if not self._store.cancel(parse_uuid("id", request.id)):
            code = grpc.StatusCode.NOT_FOUND
            raise Failure("ORDER_NOT_FOUND", "there is no such order", code=code, domain="acme.orders.v1")
        return orders_pb2.CancelOrderResponse()

    def CountUserOrders(self, request, context):
        orders = self._store.of_user(parse_uuid("user_id", request.user_id))
        return orders_pb2.CountUserOrdersResponse(count=len(orders))

    def GetOrderLimits(self, request, context):
        return orders_pb2.OrderLimits(max_quantity=MAX_QUANTITY)


def add_servicers(server):
    orders_pb2_grpc.add_OrderServiceServicer_to_server(OrderService(OrderStore()), server)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, workload="orders", contract="orders.binpb")
    parser.add_argument("--ready-file", help="where to write the address, as JSON, once the service is ready")
    arguments = parser.parse_args()
    run(Config.from_arguments(arguments), add_servicers, arguments.ready_file)
