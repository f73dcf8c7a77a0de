"""The progress of Keras's fit and predict, shown as that of everything else."""

import keras

from classifier.progress import in_notebook, progress


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's line after each epoch, and a bar that fits the terminal; in a notebook, Keras's own.

    Keras's bar fills a narrow terminal line after line, and a log sees nothing of an epoch until it
    ends. Let it be the first of the callbacks, so that what others print is below an epoch's line.
    """

    def set_params(self, params):
        super().set_params(params)
        if self.verbose == 1 and not in_notebook():
            self.verbose = 2  # a line after each epoch

    def start(self, desc: str) -> None:
        keras_draws = self.verbose == 1
        self.bar = progress(total=self.target, desc=desc, unit="step", disable=keras_draws)

    def advance(self, batch: int, logs: dict | None = None) -> None:
        self.bar.set_postfix(logs, refresh=False)
        self.bar.update(batch + 1 - self.bar.n)

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.start(f"epoch {epoch + 1}")

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.advance(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.close()
        super().on_epoch_end(epoch, logs)

    def on_predict_begin(self, logs=None):
        super().on_predict_begin(logs)
        self.start("predicting")

    def on_predict_batch_end(self, batch, logs=None):
        super().on_predict_batch_end(batch, logs)
        self.advance(batch)

    def on_predict_end(self, logs=None):
        self.bar.close()
        super().on_predict_end(logs)
