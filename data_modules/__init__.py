"""Lightning data modules: samples in, batches for a backbone out."""

from __future__ import annotations

from data_modules.base import CompositeDataModule
from data_modules.cot_sft import CoTSFTDataModule
from data_modules.evaluation import EvaluationDataModule
from data_modules.grpo import GRPODataModule
from data_modules.lab_pretrain import LabPretrainDataModule

__all__ = ["CoTSFTDataModule", "CompositeDataModule", "EvaluationDataModule", "GRPODataModule", "LabPretrainDataModule"]
