package leeway;

/** What the join takes and gives; in a job these are made of the records of leeway/v1/records.proto. */
public final class Records {
    private Records() {}

    public record Decision(String id, long timeMs) {}

    public record Outcome(String decisionId, String outcomeId, long timeMs, double value) {
        /** What two deliveries of one outcome have in common, and no other outcome of its decision has. */
        String identity() {
            return outcomeId.isEmpty() ? "\0" + timeMs + " " + (value + 0.0) : outcomeId;
        }
    }

    public record Feedback(String decisionId, double reward, boolean defaulted, int outcomes) {}

    public record DeadLetter(Outcome outcome, String reason) {}

    /** How outcomes become a reward; times in milliseconds, as in the configuration of a decision point. */
    public record Reward(long window, long grace, String aggregation, double otherwise, double low, double high)
            implements java.io.Serializable {}
}
