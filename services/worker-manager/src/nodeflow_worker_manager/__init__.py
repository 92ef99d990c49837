"""The worker-manager: owns worker sessions and the delivery of offers and results; holds no truth."""
