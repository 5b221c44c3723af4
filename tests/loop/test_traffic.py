"""Programs in, the bytes that a run reads and writes of each storage out."""

from handmade import ELEMS, affine_program, binary_kernel
from warpgroup_kernels import Product

from aotc.debug.count import count_bytes, count_flop
from aotc.graph.types import DType
from aotc.loop.ir import Alloc, Buffer, For, Kernel, Lit, Load, Space, Store, Var
from aotc.loop.program import Arg, Call, Counter, If, Loop, Program, Role, Storage
from aotc.loop.traffic import count_accesses, count_traffic


def test_every_read_and_write_of_an_element_counts():
    program = affine_program()
    traffic = count_traffic(program)
    uses = {}
    for call in program.calls:
        for arg in call.args:
            uses[arg.storage] = uses.get(arg.storage, 0) + 1
    assert traffic == {storage: 4 * ELEMS * count for storage, count in uses.items()}


def test_elements_count_as_often_as_loops_come_back():
    x, y = Buffer("x", DType.I16, 10), Buffer("y", DType.I16, 1)
    total = Buffer("total", DType.I16, 1, Space.REGISTER)
    i, again = Var("i"), Var("again")
    add = Store(total, Lit(0), Load(x, i))
    body = For(again, 3, (For(i, 10, (add,)), Store(y, Lit(0), Load(total, Lit(0)))))
    kernel = Kernel("k", (x, y), frozenset([y]), (Alloc(total, (body,)),))
    reads, writes = count_accesses(kernel)
    assert reads == {x: 30, total: 3} and writes == {total: 30, y: 3}


def test_boxes_and_products_of_warpgroups():
    kernel = Product("f16", (128, 64, 128), (64, 64), groups=1, stages=2).kernel()
    reads, _ = count_accesses(kernel)
    assert all(reads[map_.buffer] % (64 * 64) == 0 < reads[map_.buffer] for map_ in kernel.maps)
    assert count_bytes(kernel) == 2 * 128 * 128 + 2 * 128 * 64 + 4 * 128 * 64
    assert count_flop(kernel) == 2 * 128 * 64 * 128


def test_loops_and_branches_of_a_program():
    kernel = binary_kernel("add", "add")
    y, a, b, flag = (Storage(name, Role.ARENA, 4 * ELEMS) for name in ("y", "a", "b", "flag"))
    call = Call(kernel, (Arg(y), Arg(a), Arg(b)))
    branch = If(Arg(flag), (call,), (Call(kernel, (Arg(y), Arg(a), Arg(a))),))
    loop = Loop(Counter("i"), 5, (call,))
    traffic = count_traffic(Program("p", (), (), (branch, loop)))
    assert traffic == {y: 7 * 4 * ELEMS, a: 8 * 4 * ELEMS, b: 6 * 4 * ELEMS}
