package leeway;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import leeway.Records.Decision;
import leeway.Records.Feedback;
import leeway.Records.Outcome;
import leeway.Records.Reward;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.operators.co.KeyedCoProcessOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.util.KeyedTwoInputStreamOperatorTestHarness;
import org.apache.flink.util.OutputTag;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Every case of cases.json, which the join in Python is held to too (tests/deploy/test_flink.py). */
class DecisionJoinTest {
    @TestFactory
    Stream<DynamicTest> cases() throws Exception {
        JsonNode cases = new ObjectMapper().readTree(getClass().getResourceAsStream("/cases.json"));
        List<DynamicTest> tests = new ArrayList<>();
        for (JsonNode each : cases) {
            tests.add(DynamicTest.dynamicTest(each.get("name").asText(), () -> check(each, false)));
            tests.add(DynamicTest.dynamicTest(each.get("name").asText() + ", restored", () -> check(each, true)));
        }
        return tests.stream();
    }

    private static KeyedTwoInputStreamOperatorTestHarness<String, Decision, Outcome, Feedback> harness(JsonNode said)
            throws Exception {
        var reward = new Reward(said.get("window").asLong(), said.get("grace").asLong(), said.get("aggregation").asText(),
                said.get("default").asDouble(), said.get("range").get(0).asDouble(), said.get("range").get(1).asDouble());
        return new KeyedTwoInputStreamOperatorTestHarness<>(
                new KeyedCoProcessOperator<>(new DecisionJoin(reward)), Decision::id, Outcome::decisionId, Types.STRING);
    }

    /** Run a case; restored: from a snapshot before every step, as after a crash there. */
    private static void check(JsonNode said, boolean restored) throws Exception {
        var join = harness(said.get("reward"));
        join.open();
        List<String> feedback = new ArrayList<>(), late = new ArrayList<>(), dead = new ArrayList<>(), dropped = new ArrayList<>();
        for (JsonNode step : said.get("steps")) {
            if (restored) {
                var snapshot = join.snapshot(0, 0);
                join.close();
                join = harness(said.get("reward"));
                join.initializeState(snapshot);
                join.open();
            }
            JsonNode it = step.elements().next();
            switch (step.fieldNames().next()) {
                case "decision" -> join.processElement1(new Decision(it.get(0).asText(), it.get(1).asLong()), it.get(1).asLong());
                case "outcome" -> join.processElement2(
                        new Outcome(it.get(0).asText(), it.get(1).asText(), it.get(2).asLong(), it.get(3).asDouble()), it.get(2).asLong());
                default -> join.processBothWatermarks(new Watermark(it.asLong()));
            }
            join.extractOutputValues().forEach(f -> feedback.add(f.decisionId() + " " + f.reward() + " " + f.outcomes()));
            join.getOutput().clear();
            side(join, DecisionJoin.LATE).forEach(o -> late.add(o.decisionId() + " " + o.identity()));
            side(join, DecisionJoin.DEAD).forEach(d -> dead.add(d.outcome().decisionId() + " " + d.reason()));
            dropped.addAll(side(join, DecisionJoin.DROPPED));
        }
        join.close();
        JsonNode expected = said.get("expected");
        assertEquals(words(expected.get("feedback")), feedback);
        assertEquals(words(expected.get("late")), late);
        assertEquals(words(expected.get("dead")), dead);
        assertEquals(words(expected.get("dropped")), dropped);
    }

    private static <T> List<T> side(KeyedTwoInputStreamOperatorTestHarness<?, ?, ?, ?> join, OutputTag<T> tag) {
        List<T> found = new ArrayList<>();
        var queue = join.getSideOutput(tag);
        if (queue != null) {
            queue.forEach(record -> found.add(record.getValue()));
            queue.clear();
        }
        return found;
    }

    private static List<String> words(JsonNode node) {
        List<String> found = new ArrayList<>();
        if (node != null) node.forEach(each -> found.add(each.asText()));
        return found;
    }
}
