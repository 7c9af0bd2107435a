"""Everything at once, in an order that the seed decides."""

from tests.faults.campaign import Fault, Figures
from tests.faults.rig import Rig, Setup
from tests.faults.rows.calls import cut_one_call, vanish
from tests.faults.rows.databases import end_sessions, kill_session
from tests.faults.rows.processes import kill_worker


async def anything(rig: Rig) -> Figures:
    chosen = rig.random.choice([kill_worker, kill_session, end_sessions, cut_one_call, vanish])
    return await chosen(rig)


FAULTS = [Fault("F00", "a mix of F01, F04, F05, F06, F10", anything, 60, 60, Setup(through="proxy"))]
