"""What people use Kafka for, each as a folder with programs that run; README.md is the table of them."""
