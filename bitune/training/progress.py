"""What the Trainer tells while it trains: lines of the log, and the progress bar."""

from transformers import ProgressCallback, TrainerCallback


class LogLastUpdate(TrainerCallback):
    """Logs the last update whatever `logging_steps` is: `mean_loss` is over the losses that were logged."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log |= state.global_step >= state.max_steps


class Progress(ProgressCallback):
    """The progress bar, with the loss and the mean alphas beside it in place of a line of JSON now and then."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = {key: f"{float(logs[key]):.3f}" for key in ("loss", "eval_loss", "alpha_k", "alpha_v") if key in logs}
            self.training_bar.set_postfix(shown)
