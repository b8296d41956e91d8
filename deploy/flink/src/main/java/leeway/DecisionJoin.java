package leeway;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import leeway.Records.DeadLetter;
import leeway.Records.Decision;
import leeway.Records.Feedback;
import leeway.Records.Outcome;
import leeway.Records.Reward;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.functions.co.KeyedCoProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

/**
 * The rules of streaming/join.py for one decision id, one decision point: a feedback when the window closes, by a timer in
 * event time, so that an idle topic closes windows too (with a watermark strategy that has withIdleness).
 *
 * <p>What differs: the clock is Flink's watermark. It is that of the sources, and not of the outcomes that counted alone, so
 * a client whose clock is fast is for the source to bound.
 */
public final class DecisionJoin extends KeyedCoProcessFunction<String, Decision, Outcome, Feedback> {
    public static final OutputTag<Outcome> LATE = new OutputTag<>("late") {};
    public static final OutputTag<DeadLetter> DEAD = new OutputTag<>("dead letters") {};
    /** What was dropped, one word each: duplicate_decisions, duplicate_outcomes, surplus_outcomes. */
    public static final OutputTag<String> DROPPED = new OutputTag<>("dropped") {};

    private static final long LEAST_PATIENCE_MS = 10_000, MOST_PATIENCE_MS = 600_000;

    private enum Stage { WAITING, OPEN, REMEMBERED }

    private final Reward reward;
    private transient ValueState<Stage> stage;
    private transient ValueState<Long> due;
    private transient ValueState<Long> notBefore;
    private transient ValueState<Decision> decision;
    private transient ListState<Outcome> outcomes; // that wait, or that count; in the order of the log
    private transient MapState<String, Boolean> seen;

    public DecisionJoin(Reward reward) {
        this.reward = reward;
    }

    @Override
    public void open(OpenContext context) {
        stage = getRuntimeContext().getState(new ValueStateDescriptor<>("stage", Stage.class));
        due = getRuntimeContext().getState(new ValueStateDescriptor<>("due", Long.class));
        notBefore = getRuntimeContext().getState(new ValueStateDescriptor<>("not before", Long.class));
        decision = getRuntimeContext().getState(new ValueStateDescriptor<>("decision", Decision.class));
        outcomes = getRuntimeContext().getListState(new ListStateDescriptor<>("outcomes", Outcome.class));
        seen = getRuntimeContext().getMapState(new MapStateDescriptor<>("seen", String.class, Boolean.class));
    }

    @Override
    public void processElement1(Decision made, Context context, Collector<Feedback> out) throws Exception {
        Stage now = stage.value();
        if (now == Stage.OPEN || now == Stage.REMEMBERED) {
            context.output(DROPPED, "duplicate_decisions");
            return;
        }
        List<Outcome> waited = new ArrayList<>();
        outcomes.get().forEach(waited::add);
        outcomes.clear();
        seen.clear();
        if (now == Stage.WAITING) notBefore.update(due.value());
        decision.update(made);
        long clock = context.timerService().currentWatermark(), span = reward.window() + reward.grace();
        long closes = made.timeMs() + span;
        if (clock > made.timeMs()) { // it came late: its outcomes are behind it
            long patience = Math.min(span, MOST_PATIENCE_MS);
            if (closes <= clock) patience = Math.max(patience, LEAST_PATIENCE_MS);
            closes = Math.max(closes, clock + patience);
        }
        until(Stage.OPEN, closes, context);
        for (Outcome outcome : waited) join(made, outcome, context);
    }

    @Override
    public void processElement2(Outcome outcome, Context context, Collector<Feedback> out) throws Exception {
        Stage now = stage.value();
        if (now == Stage.OPEN || now == Stage.REMEMBERED) {
            join(now == Stage.OPEN ? decision.value() : null, outcome, context);
            return;
        }
        // Only the decision tells whether the value is out of range: another one of this id has to wait too.
        String copy = outcome.value() + "\0" + outcome.identity();
        if (seen.contains(copy)) {
            context.output(DROPPED, "duplicate_outcomes");
            return;
        }
        if (now == null) { // one deadline for all that wait
            long from = Math.max(outcome.timeMs(), context.timerService().currentWatermark());
            until(Stage.WAITING, from + reward.window() + reward.grace(), context);
        }
        seen.put(copy, true);
        outcomes.add(outcome);
    }

    private void join(Decision made, Outcome outcome, Context context) throws Exception {
        String copy = outcome.value() + "\0" + outcome.identity();
        if (seen.contains(outcome.identity()) || seen.contains(copy)) {
            context.output(DROPPED, "duplicate_outcomes");
        } else if (!inRange(outcome.value())) { // refused once; another value of its id may come still
            seen.put(copy, true);
            context.output(DEAD, new DeadLetter(outcome, "INVALID"));
        } else {
            seen.put(outcome.identity(), true);
            if (made == null || outcome.timeMs() > made.timeMs() + reward.window()) {
                context.output(LATE, outcome);
            } else if (reward.aggregation().equals("first") && outcomes.get().iterator().hasNext()) {
                context.output(DROPPED, "surplus_outcomes");
            } else {
                outcomes.add(outcome);
            }
        }
    }

    private boolean inRange(double value) {
        boolean within = reward.low() <= value && value <= reward.high();
        return Double.isFinite(value) && (within || reward.aggregation().equals("sum"));
    }

    @Override
    public void onTimer(long time, OnTimerContext context, Collector<Feedback> out) throws Exception {
        if (due.value() == null || due.value() != time) return; // of a stage that is over
        switch (stage.value()) {
            case OPEN -> {
                List<Outcome> counted = new ArrayList<>();
                outcomes.get().forEach(counted::add);
                double value = counted.isEmpty() ? reward.otherwise() : aggregate(counted);
                out.collect(new Feedback(context.getCurrentKey(), value, counted.isEmpty(), counted.size()));
                decision.clear();
                outcomes.clear();
                long kept = context.timerService().currentWatermark() + reward.window() + reward.grace();
                until(Stage.REMEMBERED, Math.max(kept, notBefore.value() == null ? 0 : notBefore.value()), context);
            }
            case WAITING -> {
                List<String> given = new ArrayList<>();
                for (Outcome outcome : outcomes.get()) {
                    if (given.contains(outcome.identity())) {
                        context.output(DROPPED, "duplicate_outcomes");
                        continue;
                    }
                    given.add(outcome.identity());
                    context.output(DEAD, new DeadLetter(outcome, "UNKNOWN_DECISION"));
                }
                forget();
            }
            case REMEMBERED -> forget();
        }
    }

    private void until(Stage next, long time, Context context) throws Exception {
        stage.update(next);
        due.update(time);
        context.timerService().registerEventTimeTimer(time);
    }

    private void forget() {
        stage.clear();
        due.clear();
        notBefore.clear();
        outcomes.clear();
        seen.clear();
    }

    private double aggregate(List<Outcome> counted) {
        var values = counted.stream().mapToDouble(Outcome::value);
        return switch (reward.aggregation()) {
            case "first" -> counted.get(0).value();
            // Of equal times the later one in the log.
            case "last" -> counted.stream().reduce((a, b) -> b.timeMs() >= a.timeMs() ? b : a).orElseThrow().value();
            case "sum" -> values.sum();
            case "min" -> values.min().orElseThrow();
            case "max" -> counted.stream().map(Outcome::value).max(Comparator.naturalOrder()).orElseThrow();
            default -> values.average().orElseThrow();
        };
    }
}
