"""Output of attempts, from the state-manager; and the word of the worker-managers that all of it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import grpc
import grpc.aio
from nodeflow.state_manager.v1 import log_service_pb2 as log_pb2
from nodeflow.state_manager.v1.log_service_pb2_grpc import LogServiceStub
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as workers_pb2
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub

from nodeflow_scheduler.ports import LogSelection, StoredLogs
from nodeflow_shared.retry import as_lost_connection, reconnect_delays
from nodeflow_shared.status import from_rpc_error

PATIENCE_S = 30.0
"""How long a store that is away is waited for."""
FLUSH_TIMEOUT_S = 60.0


class GrpcLogs:
    """`Logs`."""

    def __init__(self, store: grpc.aio.Channel, managers: Mapping[str, grpc.aio.Channel]) -> None:
        self._store = LogServiceStub(store)
        self._managers = {address: WorkerManagerServiceStub(channel) for address, channel in managers.items()}

    async def read(self, selection: LogSelection, *, follow: bool) -> AsyncGenerator[StoredLogs, None]:
        """See the port."""
        request = log_pb2.ReadLogsRequest(
            tenant=selection.tenant,
            execution_id=selection.execution_id,
            after_position=selection.after_position,
            from_end=selection.from_end,
            task_number=selection.task_number,
            attempt_number=selection.attempt_number,
            follow=follow,
        )
        loop = asyncio.get_running_loop()
        delays, gives_up_at = reconnect_delays(), loop.time() + PATIENCE_S
        while True:
            call = self._store.ReadLogs(request)
            try:
                async for response in call:
                    delays, gives_up_at = reconnect_delays(), loop.time() + PATIENCE_S
                    request.after_position, request.from_end = response.last_position, False
                    yield StoredLogs(
                        chunks=[(each.position, each.chunk) for each in response.chunks],
                        last_position=response.last_position,
                    )
                return
            except grpc.RpcError as error:
                lost = as_lost_connection(error)
                if lost is None or loop.time() > gives_up_at:
                    raise lost or from_rpc_error(error) from error
                await asyncio.sleep(next(delays))
            finally:
                call.cancel()

    async def flush(self, timeout_s: float) -> bool:
        """See the port."""
        try:
            async with asyncio.timeout(timeout_s):
                for stub in self._managers.values():
                    await _flush(stub)
        except TimeoutError:
            return False
        return True


async def _flush(stub: WorkerManagerServiceStub) -> None:
    """Asks until it is answered: a worker-manager that is away comes back, and its workers to it."""
    for delay_s in reconnect_delays():
        try:
            await stub.FlushLogs(workers_pb2.FlushLogsRequest(), timeout=FLUSH_TIMEOUT_S)
        except grpc.RpcError as error:
            if as_lost_connection(error) is None:
                raise from_rpc_error(error) from error
            await asyncio.sleep(delay_s)
        else:
            return
