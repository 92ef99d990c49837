"""The bench's workflows have the shape that the target names, and are documents that the scheduler takes."""

from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.bench import documents
from tests.bench.workload import bench_nodes

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.workflow import FunctionSpec, Workflow


def compiled(document: WorkflowDocument) -> Workflow:
    return compile_document(document.source, document.content_type, document.directory)


def test_the_layered_workflow_has_ten_layers_of_ten_nodes_with_three_parents_in_the_layer_before() -> None:
    workflow = compiled(documents.layered())
    depths: list[int] = []
    for node in workflow.nodes:
        depths.append(1 + max((depths[parent] for parent in node.dependencies), default=-1))
        above = {depths[parent] for parent in node.dependencies}
        assert above == ({depths[-1] - 1} if depths[-1] else set())
        assert len(node.dependencies) == (documents.PARENTS if depths[-1] else 0)
    assert {depth: depths.count(depth) for depth in depths} == dict.fromkeys(range(10), 10)


def test_every_node_but_the_last_layers_is_a_parent_of_three() -> None:
    workflow = compiled(documents.layered())
    assert sorted({len(successors) for successors in workflow.successors[:90]}) == [3]


def test_a_node_takes_one_argument_from_each_parent() -> None:
    workflow = compiled(documents.layered())
    functions = [node.executor for node in workflow.nodes]
    names = ["bench_nodes:first"] * 10 + ["bench_nodes:noop"] * 90
    assert functions == [FunctionSpec(function=name) for name in names]
    assert documents.parents(3, 9) == ["n2_9", "n2_0", "n2_1"]


def test_the_single_workflow_has_one_node() -> None:
    [node] = compiled(documents.single()).nodes
    assert node.executor == FunctionSpec(function="bench_nodes:first")


def test_functions_return_distinct_strings_of_30_characters() -> None:
    returned = [bench_nodes.first(), bench_nodes.first(), bench_nodes.noop("a", "b", "c")]
    assert len(set(returned)) == 3
    assert {len(each) for each in returned} == {30}
